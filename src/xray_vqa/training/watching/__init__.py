"""What is looked at while a run trains, and what it tells in the end."""
