//! `gantry up --build`: has cargo build the services, into the folder `gantry` runs from.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    failure::{Exit, Failure},
    output,
    project::Project,
};

/// Builds every service of `project` that has no program of its own.
///
/// Same profile, same target folder, so that what was built for `gantry` is not built again and
/// the programs land beside it. cargo draws its own progress.
pub(crate) fn build(project: &Project) -> Result<(), Failure> {
    let own = project
        .services
        .iter()
        .filter(|(_, service)| service.binary.is_none());
    let programs: Vec<&str> = own.map(|(name, _)| name.as_str()).collect();
    if programs.is_empty() {
        return Ok(());
    }
    let program = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("find gantry's own file: {error}")))?;
    let (profile, target) = built_as(&program).ok_or_else(|| {
        Failure::usage(format!(
            "--build needs a gantry that lies in a target folder of cargo, not {}",
            program.display()
        ))
    })?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--profile", profile, "--target-dir"]);
    cargo.arg(target).current_dir(&project.root);
    cargo.stdin(Stdio::null());
    // By program and not by package, as `cargo up` builds gantry: cargo then chooses features for
    // the same set of packages, and builds what they share once.
    for program in &programs {
        cargo.args(["--bin", program]);
    }
    output::note(&format!("building {}", programs.join(", ")));
    let status = cargo
        .status()
        .map_err(|error| Failure::failed(format!("run cargo: {error}")))?;
    if status.success() {
        Ok(())
    } else if status.code().is_none() {
        Err(Failure::new(Exit::Interrupted, "the build was cut short"))
    } else {
        Err(Failure::failed("the build failed"))
    }
}

/// Profile and target folder of a program cargo built: `<target>/<profile>/gantry`.
fn built_as(program: &Path) -> Option<(&str, &Path)> {
    let folder = program.parent()?;
    let profile = match folder.file_name()?.to_str()? {
        // The folder of the profile `dev` has its own name.
        "debug" => "dev",
        name => name,
    };
    let target = folder.parent()?;
    target
        .join("CACHEDIR.TAG")
        .exists()
        .then_some((profile, target))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Goal: the services are built the way gantry was.
    /// Method: programs in folders as cargo lays them out, and one installed elsewhere.
    #[test]
    fn profile_and_target_come_from_where_gantry_lies() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path();
        fs::write(target.join("CACHEDIR.TAG"), "").unwrap();
        for (name, profile) in [("debug", "dev"), ("release", "release"), ("up", "up")] {
            let program = target.join(name).join("gantry");
            assert_eq!(Some((profile, target)), built_as(&program));
        }
        assert_eq!(None, built_as(Path::new("/usr/local/bin/gantry")));
    }
}
