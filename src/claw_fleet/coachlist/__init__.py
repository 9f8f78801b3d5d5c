# SPDX-License-Identifier: GPL-3.0-or-later
"""The coach list: who should have an agent, what the fleet made of it, and the agents' API."""
