"""A run over several processes, as a rule one a host: who is who, what all agree on, how one hears of another's end."""
