"""JSON documents and the JSON Schemas that validate them: strict parsing, bounds, compiling, versions."""
