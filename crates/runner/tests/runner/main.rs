//! The runner as a process: real frames, real interpreters, an ordinary user. What a host lacks is a printed skip.

mod compiled;
mod files;
mod host;
mod hostile;
mod node;
mod output;
mod pid1;
mod put;
mod python;
mod support;
mod terminals;
mod turns_hostile;
mod turns_node;
mod turns_python;
