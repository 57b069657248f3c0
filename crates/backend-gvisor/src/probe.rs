//! x
use crate::GvisorConfig;
/// x
#[derive(Debug)]
pub enum Facet {}
/// x
#[derive(Debug)]
pub struct Finding {}
/// x
pub async fn probe(_c: &GvisorConfig) -> Vec<Finding> {
    vec![]
}
