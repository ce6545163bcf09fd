"""Readers for files that clients send inside requests (PDF → text): the only room with a PDF library."""
