"""Tests of the bench itself: what needs no engine."""
