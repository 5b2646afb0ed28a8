//! Files that a user names: read up to a bound, whatever they turn out to be.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// As the system says it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It has more bytes than are read.
    #[error("it has {bytes} bytes, at most {most} are read")]
    TooLarge {
        /// All of the file's, or where it has no end, those that were read.
        bytes: u64,
        /// The bound.
        most: u64,
    },
}

/// A file's bytes, at most so many. A device or a pipe says nothing of its size, so what is read is bounded too.
///
/// # Errors
/// It cannot be read, or is larger.
pub fn read(path: impl AsRef<Path>, most: u64) -> Result<Vec<u8>, ReadError> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes > most {
        return Err(ReadError::TooLarge { bytes, most });
    }
    let mut read = Vec::new();
    file.take(most + 1).read_to_end(&mut read)?;
    match read.len() as u64 {
        bytes if bytes > most => Err(ReadError::TooLarge { bytes, most }),
        _ => Ok(read),
    }
}

/// A file's text, at most so many bytes of it.
///
/// # Errors
/// It cannot be read, is larger, or is no UTF-8.
pub fn read_text(path: impl AsRef<Path>, most: u64) -> Result<String, ReadError> {
    let not_utf8 = |_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8");
    Ok(String::from_utf8(read(path, most)?).map_err(not_utf8)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound_and_one_without_end_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "five!").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "five!");
        assert_eq!(read(&path, 4).unwrap_err().to_string(), "it has 5 bytes, at most 4 are read");
        assert_eq!(read("/dev/zero", 1000).unwrap_err().to_string(), "it has 1001 bytes, at most 1000 are read");
        assert_eq!(read(dir.path().join("none"), 1).unwrap_err().to_string(), "No such file or directory (os error 2)");
        assert_eq!(read(dir.path(), 1 << 20).unwrap_err().to_string(), "Is a directory (os error 21)");
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path, 5).unwrap_err().to_string(), "stream did not contain valid UTF-8");
    }
}
