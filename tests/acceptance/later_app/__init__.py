"""The reference coach list as its developers may have it one day: an endpoint and a field more."""
