//! What a run of the suite came to.

use std::fmt;

/// Names of cases, and why they failed or were not run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What the backend does as it should.
    pub passed: Vec<String>,
    /// What it does not, and what it did instead.
    pub failed: Vec<(String, String)>,
    /// What it was not asked to do, and why.
    pub skipped: Vec<(String, String)>,
}

impl Report {
    /// Prints the report.
    ///
    /// # Panics
    ///
    /// When a case failed, or none was run.
    pub fn assert_passed(&self) {
        println!("{self}");
        assert!(self.failed.is_empty(), "{self}");
        assert!(!self.passed.is_empty(), "no case was run");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = (self.passed.len(), self.failed.len(), self.skipped.len());
        writeln!(f, "conformance: {} passed, {} failed, {} skipped", counts.0, counts.1, counts.2)?;
        for name in &self.passed {
            writeln!(f, "  passed   {name}")?;
        }
        for (name, why) in &self.skipped {
            writeln!(f, "  skipped  {name}: {why}")?;
        }
        for (name, why) in &self.failed {
            writeln!(f, "  FAILED   {name}: {why}")?;
        }
        Ok(())
    }
}
