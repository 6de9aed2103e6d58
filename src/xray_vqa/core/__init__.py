"""Records, rules and parsers that every stage shares; needs no torch, no web framework and no LLM client."""
