//! `enclave image`: the root file systems that sandboxes start from.
//!
//! An image is a directory of the image directory: `root.erofs`, a read-only file system that all sandboxes share, and
//! `manifest.json`, which says what is in it. [`build`] makes one from Debian or Ubuntu packages, without root and
//! without running a maintainer script. [`load`] hands one to the composition root: it checks the digest, so a sandbox
//! never starts from something other than what was built.

mod apt;
mod build;
mod finish;
mod manifest;
mod progress;
mod recipe;
mod snapshot;

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;

pub(crate) use manifest::{Image, ImageError, Manifest, default_dir, load, names};

use self::{build::Existing, recipe::Recipe};
use crate::settings::{self, Layers, flags::ConfigFlag};

/// Arguments of `enclave image`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
    #[command(flatten)]
    config: ConfigFlag,
    /// Where images are kept [default: as the configuration says; else /var/lib/enclave/images for root and
    /// $XDG_DATA_HOME/enclave/images for others]
    #[arg(long, global = true, value_name = "DIR")]
    image_dir: Option<String>,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum ImageCommand {
    /// Build an image from the distribution's packages; keeps one that is up to date
    Build(BuildArgs),
    /// List the images here, with the digest of each, verified
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `enclave image build`.
#[derive(clap::Args, Clone, Debug)]
struct BuildArgs {
    /// Name of the image, as in a session's `image`
    #[arg(long, default_value = "default")]
    name: String,
    /// Release to take packages from [default: bookworm; on Ubuntu the release of this machine]
    #[arg(long)]
    suite: Option<String>,
    /// Archive to take packages from [default: the one that apt uses on this machine]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// One more package; may be repeated
    #[arg(long = "package", value_name = "NAME")]
    packages: Vec<String>,
    /// Build even if the image is up to date: the way to get the archive's newer versions
    #[arg(long)]
    refresh: bool,
}

/// Runs `enclave image`.
pub(crate) async fn run(args: ImageArgs) -> anyhow::Result<ExitCode> {
    let flags = args.image_dir.map(|dir| ("image_dir", dir)).into_iter().collect();
    let dir = settings::image_dir(&Layers::load(args.config.config.as_deref(), flags)?)?;
    // Nothing here waits for anything but child processes and the disk.
    tokio::task::spawn_blocking(move || match args.command {
        ImageCommand::Build(args) => build_one(&dir, args),
        ImageCommand::List { json } => list(&dir, json),
    })
    .await
    .context("the image command ended abnormally")?
}

fn build_one(dir: &Path, args: BuildArgs) -> anyhow::Result<ExitCode> {
    let recipe = Recipe::new(args.suite, args.packages)?;
    let existing = if args.refresh { Existing::Replace } else { Existing::KeepIfCurrent };
    let image = build::build(dir, &args.name, &recipe, args.mirror.as_deref(), existing)?;
    println!("{}  sha256:{}  {}", args.name, image.manifest.rootfs.sha256, image.path.display());
    Ok(ExitCode::SUCCESS)
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Listed {
    Good { manifest: Box<Manifest>, verified: bool },
    Bad { name: String, verified: bool, error: String },
}

fn list(dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let listed: Vec<Listed> = manifest::names(dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .into_iter()
        .map(|name| match manifest::verify(dir, &name) {
            Ok(image) => Listed::Good { manifest: Box::new(image.manifest), verified: true },
            Err(error) => Listed::Bad { name, verified: false, error: error.to_string() },
        })
        .collect();
    let all_good = listed.iter().all(|image| matches!(image, Listed::Good { .. }));
    if json {
        println!("{}", serde_json::to_string(&listed)?);
    } else if listed.is_empty() {
        eprintln!("no images in {}; `enclave image build` makes one", dir.display());
    } else {
        for image in &listed {
            println!("{}", line(image));
        }
    }
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(image: &Listed) -> String {
    match image {
        Listed::Good { manifest, .. } => {
            let languages: Vec<String> =
                manifest.languages.iter().map(|language| format!("{} {}", language.name, language.version)).collect();
            format!(
                "{:<16} {:<10} {:>5} MiB  {}  sha256:{} verified  {}",
                manifest.name,
                manifest.suite,
                manifest.rootfs.size_bytes >> 20,
                languages.join(", "),
                manifest.rootfs.sha256,
                manifest.created_at,
            )
        }
        Listed::Bad { name, error, .. } => format!("{name:<16} UNUSABLE: {error}"),
    }
}
