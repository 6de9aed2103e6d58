"""What people do about the machine's answers: stop it, overrule it, tell it what was in the bag."""
