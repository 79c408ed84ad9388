//! The demo: the whole story of Writ on one machine, over real HTTP, step by step, each with what was expected and what
//! happened. `stage` sets it up, `story` tells it, `outsider` is the client, `report` prints; `login` is the act with a
//! `database`, where there is one.

mod database;
mod login;
mod outsider;
mod report;
mod stage;
mod story;
mod tamper;

pub(crate) use report::Report;
pub(crate) use stage::Stage;
pub(crate) use story::tell;
