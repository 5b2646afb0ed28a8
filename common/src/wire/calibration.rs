//! The calibration's messages.

use plimsoll_proto::v1;

use super::{WireError, count, histogram, micros, phase, range};
use crate::calibration::{Calibration, CalibrationOrder, MOST_BYTES};
use crate::units::Rate;

impl From<&CalibrationOrder> for v1::Calibrate {
    fn from(order: &CalibrationOrder) -> Self {
        Self {
            request_bytes: order.request_bytes,
            reply_bytes: order.reply_bytes,
            max_lateness_us: micros(order.max_lateness),
        }
    }
}

impl TryFrom<v1::Calibrate> for CalibrationOrder {
    type Error = WireError;

    fn try_from(m: v1::Calibrate) -> Result<Self, WireError> {
        const M: &str = "Calibrate";
        for (field, bytes) in [("request_bytes", m.request_bytes), ("reply_bytes", m.reply_bytes)] {
            if bytes > MOST_BYTES {
                return Err(range(M, field, bytes, "at most 1048576"));
            }
        }
        if m.max_lateness_us == 0 {
            return Err(range(M, "max_lateness_us", 0, "at least 1"));
        }
        let max_lateness = phase(M, "max_lateness_us", m.max_lateness_us)?;
        Ok(Self { request_bytes: m.request_bytes, reply_bytes: m.reply_bytes, max_lateness })
    }
}

impl From<&Calibration> for v1::Calibrated {
    fn from(calibration: &Calibration) -> Self {
        Self {
            ceiling_milli_per_s: calibration.ceiling.milli(),
            paced_milli_per_s: calibration.paced.milli(),
            due: calibration.due,
            released: calibration.released,
            lateness_hdr_v2: calibration.lateness.to_v2(),
        }
    }
}

impl TryFrom<v1::Calibrated> for Calibration {
    type Error = WireError;

    fn try_from(m: v1::Calibrated) -> Result<Self, WireError> {
        const M: &str = "Calibrated";
        let rate = |field, milli| Rate::from_milli(milli).ok_or_else(|| range(M, field, milli, "a rate"));
        if m.released > m.due {
            return Err(range(M, "released", m.released, "at most due"));
        }
        Ok(Self {
            ceiling: rate("ceiling_milli_per_s", m.ceiling_milli_per_s)?,
            paced: rate("paced_milli_per_s", m.paced_milli_per_s)?,
            due: count(M, "due", m.due)?,
            released: m.released,
            lateness: histogram(M, "lateness_hdr_v2", m.lateness_hdr_v2)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::LatencyHistogram;
    use std::time::Duration;

    #[test]
    fn a_calibration_survives_the_wire() {
        let mut lateness = LatencyHistogram::new();
        [40, 900].iter().for_each(|&us| lateness.record(us));
        let rate = |milli| Rate::from_milli(milli).unwrap();
        let sent = Calibration { ceiling: rate(9), paced: rate(4), due: 3, released: 2, lateness };
        assert_eq!(Calibration::try_from(v1::Calibrated::from(&sent)), Ok(sent));
        let order = CalibrationOrder { request_bytes: 1, reply_bytes: 2, max_lateness: Duration::from_micros(3) };
        assert_eq!(CalibrationOrder::try_from(v1::Calibrate::from(&order)), Ok(order));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let order = |request_bytes, max_lateness_us| v1::Calibrate { request_bytes, reply_bytes: 0, max_lateness_us };
        let done = |ceiling_milli_per_s, released| v1::Calibrated {
            ceiling_milli_per_s,
            paced_milli_per_s: 1,
            released,
            ..v1::Calibrated::default()
        };
        let refused = [
            CalibrationOrder::try_from(order(MOST_BYTES + 1, 1)).map(drop),
            CalibrationOrder::try_from(order(0, 0)).map(drop),
            Calibration::try_from(done(0, 0)).map(drop),
            Calibration::try_from(done(1, 1)).map(drop),
        ];
        assert!(refused.iter().all(Result::is_err), "{refused:?}");
    }
}
