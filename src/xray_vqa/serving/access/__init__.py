"""Who may do what: keys of scanners, sign-in of people, roles, and the gate in front of every address."""
