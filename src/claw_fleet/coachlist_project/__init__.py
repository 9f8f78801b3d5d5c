# SPDX-License-Identifier: GPL-3.0-or-later
"""A minimal project around the coach list, configured by environment variables."""
