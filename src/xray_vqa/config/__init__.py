"""Configuration: YAML files and `key=value` words become typed, frozen objects; an unknown key is an error."""
