"""What the fleet promises, shown on a running one: `make up`, then a day in its life."""
