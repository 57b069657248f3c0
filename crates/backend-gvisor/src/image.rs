//! The images of this host, opened.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::PathBuf,
};

use crate::config::ImageRef;

/// Where EROFS keeps its superblock, and how that begins.
const EROFS_MAGIC: (u64, [u8; 4]) = (1024, 0xe0f5_e1e2_u32.to_le_bytes());

/// Directories that an image must have, because its root is read-only and something is mounted there.
pub const MOUNT_POINTS: [&str; 6] = ["/dev", "/disk", "/proc", "/sys", "/tmp", "/workspace"];

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be opened.
    #[error("image {name:?} at {}", path.display())]
    Open {
        /// Its name.
        name: String,
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is neither an EROFS file nor a directory.
    #[error("image {name:?} at {} is neither an EROFS file nor a directory", path.display())]
    Kind {
        /// Its name.
        name: String,
        /// Where it is.
        path: PathBuf,
    },
    /// Sandboxes run as users of their own, who must be able to read it.
    #[error("image {name:?} at {} is not readable by everyone; chmod a+r it", path.display())]
    Private {
        /// Its name.
        name: String,
        /// Where it is.
        path: PathBuf,
    },
}

/// An image.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) root: Root,
}

/// Its root file system.
#[derive(Debug)]
pub(crate) enum Root {
    /// Held open: whatever happens to the name, all sandboxes of this process have the same image.
    Erofs(File),
    Directory(PathBuf),
}

impl Image {
    pub(crate) fn open(image: &ImageRef) -> Result<Self, ImageError> {
        let ImageRef { name, root: path } = image;
        let (name, path) = (name.clone(), path.clone());
        let opened = || -> io::Result<_> {
            let path = fs::canonicalize(&path)?;
            let file = File::open(&path)?;
            let metadata = file.metadata()?;
            Ok((path, file, metadata))
        };
        let (real, file, metadata) = match opened() {
            Ok(opened) => opened,
            Err(source) => return Err(ImageError::Open { name, path, source }),
        };
        if metadata.is_dir() {
            return Ok(Self { name, root: Root::Directory(real) });
        }
        let (offset, magic) = EROFS_MAGIC;
        let mut found = [0; 4];
        if !metadata.is_file() || file.read_exact_at(&mut found, offset).is_err() || found != magic {
            return Err(ImageError::Kind { name, path });
        }
        if metadata.permissions().mode() & 0o004 == 0 {
            return Err(ImageError::Private { name, path });
        }
        Ok(Self { name, root: Root::Erofs(file) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: PathBuf) -> Result<Image, ImageError> {
        Image::open(&ImageRef { name: "default".into(), root: path })
    }

    #[test]
    fn an_image_is_known_by_what_it_is_not_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("root.img");
        assert!(matches!(open(file.clone()), Err(ImageError::Open { .. })));
        fs::write(&file, "short").unwrap();
        assert!(matches!(open(file.clone()), Err(ImageError::Kind { .. })));
        let mut image = vec![0; 1028];
        image[1024..].copy_from_slice(&EROFS_MAGIC.1);
        fs::write(&file, image).unwrap();
        assert!(matches!(open(file.clone()), Ok(Image { root: Root::Erofs(_), .. })));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(open(file), Err(ImageError::Private { .. })));
        assert!(matches!(open(dir.path().into()), Ok(Image { root: Root::Directory(_), .. })));
    }
}
