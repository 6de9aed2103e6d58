"""The vision-language model: loading it, showing it a scan, and the prompt tree that trains and scores it."""
