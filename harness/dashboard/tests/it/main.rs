//! Whole sites: that every link leads somewhere, that no text breaks out, that nothing is too large.

mod demo;
mod hostile;
mod html;
mod machines;
mod nights;
mod whole;
