//! The client against a server that answers what it was told to, byte by byte: cuts, garbage, refusals.

#[cfg(test)]
mod calls;
#[cfg(test)]
mod script;
#[cfg(test)]
mod streams;
