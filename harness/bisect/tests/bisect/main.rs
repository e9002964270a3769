//! Bisections of real repositories, with a judge that reads what a commit is from a file in it.

mod finds;
mod history;
mod resumes;
mod untouched;
