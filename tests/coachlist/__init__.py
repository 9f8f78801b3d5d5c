"""Tests of the coach list."""
