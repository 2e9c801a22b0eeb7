"""Types of the API: decoding checks, OpenAPI documents, structural schemas of CRDs."""
