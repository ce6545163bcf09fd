"""One frozen record a request, read by metrics and logs at the edge."""
