//! The use cases of Writ and the ports that they need.
