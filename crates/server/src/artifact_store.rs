//! Where artifacts are kept: what the setting says, and the way there.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use anyhow::Context as _;
use engine::Depot;
use object_store::{aws::AmazonS3Builder, path::Path};

/// What `artifact_store` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ArtifactStore {
    Directory(PathBuf),
    /// A bucket of a store that speaks S3, and what all names in it begin with.
    S3 {
        bucket: String,
        prefix: String,
    },
}

impl FromStr for ArtifactStore {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(place) = text.strip_prefix("s3://") else {
            if text.is_empty() {
                return Err("must not be empty".to_owned());
            }
            return match text.split_once("://") {
                Some((scheme, _)) => Err(format!("{scheme}:// is no store that is known: a directory, or s3://BUCKET")),
                None => Ok(Self::Directory(text.into())),
            };
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(plain) {
            return Err("the name of a bucket has 3 to 63 lower-case letters, digits, hyphens and dots".to_owned());
        }
        let prefix = prefix.trim_end_matches('/');
        Path::parse(prefix).map_err(|error| format!("the prefix cannot be used: {error}"))?;
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl ArtifactStore {
    /// Opens it. A bucket must be there, and let itself be listed.
    pub(crate) async fn open(self) -> anyhow::Result<Depot> {
        match self {
            Self::Directory(place) => Depot::open(place).context("the directory for artifacts cannot be used"),
            Self::S3 { bucket, prefix } => {
                let store = AmazonS3Builder::from_env().with_bucket_name(&bucket).build();
                let store = store.context("the bucket for artifacts cannot be reached")?;
                let depot = Depot::bucket(Arc::new(store), &prefix).await;
                depot.with_context(|| format!("the bucket {bucket} for artifacts cannot be used"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_or_a_bucket_and_nothing_else_is_a_store() {
        assert_eq!("/var/x".parse(), Ok(ArtifactStore::Directory("/var/x".into())));
        let s3 = |bucket: &str, prefix: &str| ArtifactStore::S3 { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!("s3://kept".parse(), Ok(s3("kept", "")));
        assert_eq!("s3://kept.eu/a/b/".parse(), Ok(s3("kept.eu", "a/b")));
        for wrong in ["", "s3://", "s3://K", "s3://kept/a//b", "s3://kept/../x", "gs://kept", "http://kept"] {
            wrong.parse::<ArtifactStore>().unwrap_err();
        }
    }
}
