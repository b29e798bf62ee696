; Wants the lock of gamma, which the hog has. Then tries to unlock it for the hog.
        call meet
        mov r1, gamma
        call lock
        mov r6, r0
        mov r1, r6
        call print
        mov r1, gamma
        call unlock
        mov r0, r6
        exit
