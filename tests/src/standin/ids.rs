//! Ids that the backend makes up.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

/// A UUID of version 7: 48 bits of Unix milliseconds, then chance (RFC 9562).
pub(super) fn uuid_v7(unix_ms: u64, rng: &mut ChaCha8Rng) -> String {
    let (a, b) = (rng.next_u64(), rng.next_u64());
    let (time_high, time_low) = ((unix_ms >> 16) as u32, unix_ms as u16);
    let (version, variant) = (0x7000 | (a & 0x0fff), 0x8000 | ((a >> 12) & 0x3fff));
    format!("{time_high:08x}-{time_low:04x}-{version:04x}-{variant:04x}-{:012x}", b >> 16)
}

/// A message id: 20 characters of base62.
pub(super) fn message_id(rng: &mut ChaCha8Rng) -> String {
    const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    (0..20).map(|_| char::from(BASE62[((u64::from(rng.next_u32()) * 62) >> 32) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn ids_have_their_format() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let uuid = uuid_v7(0x0198_0a2b_7c3d, &mut rng);
        assert!(uuid.starts_with("01980a2b-7c3d-7") && uuid.len() == 36, "{uuid}");
        assert!(matches!(uuid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{uuid}");
        let id = message_id(&mut rng);
        assert!(id.len() == 20 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
    }
}
