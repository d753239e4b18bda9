"""`imagegate probe` tests the abilities of a credential by paid calls."""
