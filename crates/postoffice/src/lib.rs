//! postoffice
