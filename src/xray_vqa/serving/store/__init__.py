"""What the service writes down: each answer, before it is given. People's feedback on them will stand beside it."""
