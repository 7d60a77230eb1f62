//! The command line: `secateur VERB IN.onnx [OUT.onnx]`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod cmd;
mod engines;
mod rates;

fn main() -> std::process::ExitCode {
    cmd::start(std::env::args_os().collect())
}
