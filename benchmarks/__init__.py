"""What the fleet costs, beside what the same work costs otherwise: `make bench`."""
