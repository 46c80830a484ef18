// csrc/sign_changes_portable.cpp -- the row pass for any processor.
#define PLR_ROW row_portable
#include "sign_changes_row.inl"
