//! Policy as typed Cedar: schema from intents and tools, decisions with reasons. Pure.
