"""The HTTP service: routes, wire schemas, authentication, problem details, one handler module per resource."""
