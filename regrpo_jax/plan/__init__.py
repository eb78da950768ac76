"""What a configuration needs, found by compiling its programs for devices that need not be here."""
