//! Data plane: MCP and HTTP in, upstream out.
