//! Control plane: OAuth, REST, log reads.
