"""The inspection API: scans and declarations come in over HTTP, decisions go out, each written down first.

`schemas` alone knows the wire's names and needs no web framework; the command line prints the same answers with it.
"""
