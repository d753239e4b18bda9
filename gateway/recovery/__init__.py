"""Recovery of dead workers' tasks: leases, adoption, collection of results, conclusion."""
