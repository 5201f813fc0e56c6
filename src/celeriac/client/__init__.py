"""Everything a web process needs to send and wait: resolver, sender, routes, reading of results, remote control."""
