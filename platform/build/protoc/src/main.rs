//! As much of protoc's command line as build scripts use, on protox: files in, descriptor set out.

use std::{env, error::Error, ffi::OsString, fs, path::PathBuf, process::ExitCode};

const USAGE: &str =
    "usage: protoc -o FILE [--include_imports] [--include_source_info] [-I DIR]... PROTO...

A stand-in for protoc that writes descriptor sets and no code. With a real protoc on PATH, or
named by PROTOC, this one is not used.";

#[derive(Default)]
struct Command {
    includes: Vec<PathBuf>,
    protos: Vec<PathBuf>,
    output: Option<PathBuf>,
    include_imports: bool,
    include_source_info: bool,
}

fn main() -> ExitCode {
    match run(env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: impl Iterator<Item = OsString>) -> Result<(), Box<dyn Error>> {
    let Some(command) = Command::parse(arguments)? else {
        println!("{USAGE}");
        return Ok(());
    };
    let output = command
        .output
        .ok_or("protoc: no -o; this stand-in writes descriptor sets alone")?;
    let mut includes = command.includes;
    if includes.is_empty() {
        includes.push(PathBuf::from("."));
    }
    // The places of faults are in the Debug form of protox's errors.
    let readable = |error: protox::Error| format!("{error:?}");
    let mut compiler = protox::Compiler::new(&includes).map_err(readable)?;
    compiler
        .include_imports(command.include_imports)
        .include_source_info(command.include_source_info)
        .open_files(&command.protos)
        .map_err(readable)?;
    fs::write(&output, compiler.encode_file_descriptor_set())
        .map_err(|error| format!("protoc: write {}: {error}", output.display()))?;
    Ok(())
}

impl Command {
    /// Reads the arguments; `None` where help is asked for.
    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Self>, Box<dyn Error>> {
        let mut command = Self::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let text = argument.to_str().unwrap_or_default();
            let mut value = |joined: &str| -> Result<PathBuf, String> {
                if joined.is_empty() {
                    let next = arguments.next().map(PathBuf::from);
                    return next.ok_or_else(|| format!("protoc: {text} wants a value"));
                }
                Ok(PathBuf::from(joined.strip_prefix('=').unwrap_or(joined)))
            };
            if matches!(text, "-h" | "--help" | "--version") {
                return Ok(None);
            } else if text == "--include_imports" {
                command.include_imports = true;
            } else if text == "--include_source_info" {
                command.include_source_info = true;
            } else if text == "--experimental_allow_proto3_optional" {
                // As every protoc since 3.15 does without being told.
            } else if let Some(joined) = text.strip_prefix("--descriptor_set_out") {
                command.output = Some(value(joined)?);
            } else if let Some(joined) = text.strip_prefix("--proto_path") {
                command.includes.push(value(joined)?);
            } else if let Some(joined) = text.strip_prefix("-o") {
                command.output = Some(value(joined)?);
            } else if let Some(joined) = text.strip_prefix("-I") {
                command.includes.push(value(joined)?);
            } else if text.starts_with('-') {
                return Err(format!("protoc: this stand-in does not know {text}\n{USAGE}").into());
            } else {
                command.protos.push(PathBuf::from(&argument));
            }
        }
        if command.protos.is_empty() {
            return Err(format!("protoc: no file to compile\n{USAGE}").into());
        }
        Ok(Some(command))
    }
}
