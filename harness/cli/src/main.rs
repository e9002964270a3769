//! The `dmarig` command.

fn main() -> std::process::ExitCode {
    dmarig::main(std::env::args_os())
}
