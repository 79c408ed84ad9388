//! Credential backends: one module for each kind of target, each an implementation of [`authority::target::Target`].
//! This crate owns how a credential is made and taken back at a real system. It must never know tasks, policy or the log
//! beyond the plan that it is shown, and it never touches anything without our mark.
