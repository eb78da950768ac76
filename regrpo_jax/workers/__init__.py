"""Workers of episodes on other machines."""
