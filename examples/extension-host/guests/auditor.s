; Attached to updates of delta: runs while that entry's bucket is locked. Looks at the entry all the same, which is
; refused; and counts that in audit[0]. Nor can it unlock what the writer holds: that is another run.
        mov r1, delta
        call unlock
        mov r1, delta
        mov r2, 0
        call lookup
        jslt r0, 0, shut
        mov r0, 0               ; not refused: nothing to count
        exit
shut:   mov r1, audit
        mov r2, 0
        call lookup
        add r0, 1
        mov r3, r0
        mov r1, audit
        mov r2, 0
        call update
        exit
