"""`imagegate probe`: asks a vendor, with paid calls, which abilities a credential has."""
