"""What a run will do and take, and passes as large as memory allows."""
